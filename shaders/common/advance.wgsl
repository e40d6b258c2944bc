// What follows a choice. The importing kernel binds `settings`, `positions`, `tokens`, `seen` (one bit a token) and `choices`,
// and has `rows` and `seen_words` in its immediates.
//
// choices: u32 [rows, 2] steps of each row's text and steps run since the rows were set, then [RING, rows] choices.
override RING: u32;

// The step of row's text that is being chosen.
fn text_step(row: u32) -> u32 {
    return choices[2u * row];
}

// Writes the choice to the log. A token becomes the row's next input. A row that chose none is not in use any more, nor is
// one at the end of its context. For one lane.
fn advance(row: u32, choice: u32) {
    let tick = choices[2u * row + 1u];
    choices[2u * p.rows + (tick % RING) * p.rows + row] = choice;
    choices[2u * row + 1u] = tick + 1u;
    if (choice >= NOT_FINITE) {
        positions[row] = UNUSED;
        return;
    }
    choices[2u * row] += 1u;
    tokens[row] = choice;
    seen[row * p.seen_words + choice / 32u] |= 1u << (choice % 32u);
    let next = positions[row] + 1u;
    positions[row] = select(next, UNUSED, next >= settings[row].context);
}
