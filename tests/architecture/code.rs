//! Just enough of Rust's syntax to read paths from a file: what is code and which paths it names.

/// The text with comments, literals and `#[cfg(test)]` modules blanked. Lines stay where they are.
pub(crate) fn code_only(text: &str) -> String {
    without_test_modules(&without_literals(text))
}

/// Blanks comments and the contents of string and character literals.
fn without_literals(text: &str) -> String {
    let input: Vec<char> = text.chars().collect();
    let mut output = String::with_capacity(text.len());
    let mut at = 0;
    while at < input.len() {
        let end = literal_end(&input, at);
        if end == at {
            output.push(input[at]);
            at += 1;
        } else {
            output.extend(input[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    output
}

/// The end of the comment or literal that starts at `at`; `at` itself where none does.
fn literal_end(input: &[char], at: usize) -> usize {
    let rest = &input[at..];
    let starts = |pattern: &str| pattern.chars().enumerate().all(|(i, c)| rest.get(i) == Some(&c));
    let in_word = at > 0 && (input[at - 1].is_alphanumeric() || input[at - 1] == '_');
    if starts("//") {
        return at + rest.iter().position(|&c| c == '\n').unwrap_or(rest.len());
    }
    if starts("/*") {
        let (mut depth, mut i) = (0_usize, 0);
        while i < rest.len() {
            match (rest[i], rest.get(i + 1)) {
                ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
                ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
                _ => i += 1,
            }
            if depth == 0 {
                break;
            }
        }
        return at + i;
    }
    let raw = usize::from(starts("br")) + 1;
    let hashes = rest.iter().skip(raw).take_while(|&&c| c == '#').count();
    if (starts("r") || starts("br")) && !in_word && rest.get(raw + hashes) == Some(&'"') {
        let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
        let body = raw + hashes + 1;
        let length = rest[body..].windows(close.len()).position(|w| w == close);
        return at + length.map_or(rest.len(), |length| body + length + close.len());
    }
    match rest[0] {
        '"' => quoted_end(input, at),
        // A character literal, not a lifetime: 'x' or an escape.
        '\'' if rest.get(1) == Some(&'\\') || rest.get(2) == Some(&'\'') => quoted_end(input, at),
        _ => at,
    }
}

/// The end of the literal whose opening quote is at `at`.
fn quoted_end(input: &[char], at: usize) -> usize {
    let mut i = at + 1;
    while i < input.len() && input[i] != input[at] {
        i += if input[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(input.len())
}

/// Blanks the bodies of inline test modules: tests may look at anything.
fn without_test_modules(code: &str) -> String {
    let mut output = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find("#[cfg(test)]") {
        let after = &rest[start + "#[cfg(test)]".len()..];
        let item = &after[..after.find(['{', ';']).map_or(after.len(), |i| i + 1)];
        output.push_str(&rest[..start]);
        if item.split_whitespace().any(|word| word == "mod") && item.ends_with('{') {
            let body = &after[item.len()..];
            let end = closing_brace(body);
            output.extend(after[..item.len() + end].chars().filter(|&c| c == '\n'));
            rest = &body[end..];
        } else {
            output.push_str(item);
            rest = &after[item.len()..];
        }
    }
    output + rest
}

/// The length of `body`, which follows an opening brace, up to and with the closing one.
fn closing_brace(body: &str) -> usize {
    let mut depth = 1;
    for (i, c) in body.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i + 1;
        }
    }
    body.len()
}

/// What follows `prefix` (as `crate::`) wherever that stands as a whole path prefix in `code`: with its line
/// number the next name, or for a group each first name in it; `*` for everything.
pub(crate) fn names_after(code: &str, prefix: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + prefix.len()..];
        let names = match rest.strip_prefix('{') {
            Some(group) => group_names(&group[..closing_brace(group)]),
            None => vec![first_name(rest)],
        };
        found.extend(names.into_iter().map(|name| (line, name)));
    }
    found
}

/// The first name of each path in the text of a `use` group, which ends with its brace.
fn group_names(group: &str) -> Vec<String> {
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (i, c) in group.char_indices() {
        if depth == 0 && (c == ',' || c == '}') {
            names.push(first_name(group[start..i].trim_start()));
            start = i + 1;
        }
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The identifier (or `*`) that `text` starts with.
fn first_name(text: &str) -> String {
    if text.starts_with('*') {
        return "*".into();
    }
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The lines on which `word` stands as an identifier of its own.
pub(crate) fn lines_naming(code: &str, word: &str) -> Vec<usize> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.lines()
        .enumerate()
        .filter(|(_, line)| line.split(|c| !is_word(c)).any(|w| w == word))
        .map(|(i, _)| i + 1)
        .collect()
}

#[test]
fn comments_and_literals_are_not_code() {
    let text = concat!(
        "//! crate::a\n",
        "let s = \"crate::b \\\" crate::c\"; /* crate::d /* x */ crate::e */ let c = '\"'; crate::f;\n",
        "let r = r#\"crate::g \" \"#; fn x<'a>(v: &'a str) { crate::h }\n",
        "let q = '\\''; crate::i; let b = b\"crate::j\"; // crate::k",
    );
    let names: Vec<_> = names_after(&code_only(text), "crate::").into_iter().collect();
    let expected = [(2, "f"), (3, "h"), (4, "i")].map(|(line, name)| (line, name.to_owned()));
    assert_eq!(names, expected);
}

#[test]
fn test_modules_are_left_out_and_lines_are_kept() {
    let text = "#[cfg(test)]\nmod tests {\n    use crate::a;\n    mod x {}\n}\ncrate::b;\n#[cfg(test)]\nfn f() { crate::c }";
    let names = names_after(&code_only(text), "crate::");
    assert_eq!(names, [(6, "b".to_owned()), (8, "c".to_owned())]);
}

#[test]
fn groups_name_each_first_segment() {
    let text = "use crate::{a, b::{c, d}, e as f,\n    g::*};\nuse crate::*; xcrate::h; $crate::i!()";
    let names: Vec<_> = names_after(text, "crate::").into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["a", "b", "e", "g", "*", "i"]);
}
