//! Bit packing, against an oracle that treats a column as one long number.

use exlay::packing::{Group, Layout, WIDTHS, pack, pack_scales, unpack, unpack_scales};
use proptest::prelude::*;

/// The words of one column, bit by bit.
fn column_words(codes: &[u8], bits: u32) -> Vec<u32> {
    let stream: Vec<bool> =
        codes.iter().flat_map(|&code| (0..bits).map(move |bit| code >> bit & 1 == 1)).collect();
    let word = |bits: &[bool]| bits.iter().rev().fold(0, |word, &bit| word << 1 | u32::from(bit));
    stream.chunks(32).map(word).collect()
}

fn codes(columns: usize) -> impl Strategy<Value = (u32, Vec<u8>)> {
    (0..6_usize, 1..5_usize).prop_flat_map(move |(width, blocks)| {
        let bits = WIDTHS[width];
        let code = 0..=((1_u32 << bits) - 1) as u8;
        (Just(bits), prop::collection::vec(code, blocks * 32 * columns))
    })
}

fn groups() -> impl Strategy<Value = Vec<Group>> {
    let group =
        (0..6_usize, 1..9_usize).prop_map(|(width, blocks)| Group { bits: WIDTHS[width], rows: 32 * blocks });
    prop::collection::vec(group, 1..40).prop_map(|mut groups| {
        groups.sort_by_key(|group| std::cmp::Reverse(group.bits));
        groups
    })
}

proptest! {
    #[test]
    fn codes_lie_where_the_format_says((bits, codes) in codes(7)) {
        let words = pack(&codes, 7, bits);
        prop_assert_eq!(words.len(), codes.len() * bits as usize / 32);
        for column in 0..7 {
            let of_column: Vec<u8> = codes.iter().skip(column).step_by(7).copied().collect();
            let found: Vec<u32> = words.iter().skip(column).step_by(7).copied().collect();
            prop_assert_eq!(found, column_words(&of_column, bits));
        }
        prop_assert_eq!(unpack(&words, 7, bits), codes);
    }

    #[test]
    fn scale_codes_round_trip(codes in prop::collection::vec(1..=16_u8, 96)) {
        prop_assert_eq!(unpack_scales(&pack_scales(&codes)), codes);
    }

    #[test]
    fn layouts_round_trip(groups in groups()) {
        let layout = Layout::new(groups).unwrap();
        let rows: usize = layout.groups().iter().map(|group| group.rows).sum();
        prop_assert_eq!(layout.rows(), rows);
        prop_assert_eq!(Layout::from_q_groups(&layout.q_groups(), layout.word_rows()).unwrap(), layout);
    }

    /// No pairs and no number of rows make it panic, and what is accepted means what it says.
    #[test]
    fn any_q_groups_are_read_or_refused(
        pairs in prop::collection::vec((prop::sample::select(vec![0_u16, 2, 3, 4, 5, 6, 7, 8, 9]), 0..40_u16), 0..6),
        word_rows in 0..60_usize,
    ) {
        let q_groups: Vec<u16> = pairs.into_iter().flat_map(|(bits, start)| [bits, start]).collect();
        if let Ok(layout) = Layout::from_q_groups(&q_groups, word_rows) {
            prop_assert_eq!(layout.q_groups(), q_groups);
            prop_assert_eq!(layout.word_rows(), word_rows);
            prop_assert!(layout.groups().iter().all(|group| group.rows > 0 && group.rows % 32 == 0));
        }
    }
}
