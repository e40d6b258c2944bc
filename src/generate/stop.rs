//! When a text ends: at an end token, or at a stop string wherever the tokens are cut.
//!
//! A stop string may begin in one token and end in a later one, so text that could be its beginning is
//! held back until it is known. The text before the stop string is shown, the stop string is not.
//! What is shown in all does not depend on how the text was cut into pieces.

use crate::error::{Error, Result};

/// Watches the tokens and the text of one row.
#[derive(Clone, Debug)]
pub struct StopMatcher {
    end_tokens: Vec<u32>,
    strings: Vec<String>,
    /// Text not shown yet: it could be the beginning of a stop string.
    held: String,
    stopped: bool,
}

impl StopMatcher {
    /// Stops at any of `end_tokens` and at any of `strings`; both may be empty.
    ///
    /// # Errors
    /// [`Error::Argument`] if a stop string is empty: it would match everywhere.
    pub fn new(end_tokens: Vec<u32>, strings: Vec<String>) -> Result<Self> {
        if strings.iter().any(String::is_empty) {
            return Err(Error::argument("--stop", "an empty text would stop at once; leave it out"));
        }
        Ok(Self { end_tokens, strings, held: String::new(), stopped: false })
    }

    /// Whether `token` ends the text. Its own text is not to be shown.
    pub fn is_end_token(&self, token: u32) -> bool {
        self.end_tokens.contains(&token)
    }

    /// Takes the next piece of text and returns what may be shown now. After a stop string has been
    /// seen ([`Self::stopped`]) it returns nothing.
    ///
    /// The stop string that is complete first counts; of those that end at the same place, the longest.
    pub fn push(&mut self, piece: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(piece);
        let matches = self.strings.iter().filter_map(|stop| {
            let start = self.held.find(stop)?;
            Some((start + stop.len(), start))
        });
        if let Some((_, start)) = matches.min() {
            self.stopped = true;
            self.held.truncate(start);
            return std::mem::take(&mut self.held);
        }
        let keep = self.beginning_of_a_stop();
        let kept = self.held.split_off(keep);
        std::mem::replace(&mut self.held, kept)
    }

    /// Whether a stop string has been seen.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Ends the text and returns what was held back: it was no stop string after all.
    pub fn finish(&mut self) -> String {
        self.stopped = true;
        std::mem::take(&mut self.held)
    }

    /// Where the longest end of `held` starts that is the beginning of a stop string.
    fn beginning_of_a_stop(&self) -> usize {
        let longest = self.strings.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest);
        let mut starts = self.held.char_indices().map(|(start, _)| start).filter(|&start| start >= from);
        starts
            .find(|&start| self.strings.iter().any(|stop| stop.starts_with(&self.held[start..])))
            .unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matcher(strings: &[&str]) -> StopMatcher {
        StopMatcher::new(vec![2, 5], strings.iter().map(|s| s.to_string()).collect()).unwrap()
    }

    #[test]
    fn end_tokens() {
        let stop = matcher(&[]);
        assert!(stop.is_end_token(2) && stop.is_end_token(5) && !stop.is_end_token(3));
    }

    #[test]
    fn without_stop_strings_text_passes_at_once() {
        let mut stop = matcher(&[]);
        assert_eq!(stop.push("a"), "a");
        assert_eq!(stop.push("é"), "é");
        assert_eq!(stop.finish(), "");
    }

    #[test]
    fn a_stop_string_across_pieces_is_cut() {
        let mut stop = matcher(&["END"]);
        assert_eq!(stop.push("one E"), "one ");
        assert_eq!(stop.push("N"), "");
        assert!(!stop.stopped());
        assert_eq!(stop.push("D two"), "");
        assert!(stop.stopped());
        assert_eq!(stop.push("three"), "");
        assert_eq!(stop.finish(), "");
    }

    #[test]
    fn a_false_start_is_shown_later() {
        let mut stop = matcher(&["aab"]);
        assert_eq!(stop.push("aa"), "");
        assert_eq!(stop.push("a"), "a", "the last two could still be the beginning");
        assert_eq!(stop.push("c"), "aac");
        assert_eq!(stop.push("a"), "");
        assert_eq!(stop.finish(), "a");
    }

    #[test]
    fn the_one_complete_first_counts_however_the_text_is_cut() {
        for pieces in [&["xabcd"][..], &["xab", "cd"], &["xabc", "d"]] {
            let mut stop = matcher(&["abcd", "bc"]);
            let shown: String = pieces.iter().map(|piece| stop.push(piece)).collect();
            assert_eq!((shown.as_str(), stop.stopped()), ("xa", true), "{pieces:?}");
        }
    }

    #[test]
    fn of_two_that_end_together_the_longest_counts() {
        let mut stop = matcher(&["c", "abc"]);
        assert_eq!(stop.push("ab"), "");
        assert_eq!(stop.push("c"), "");
        assert!(stop.stopped());
    }

    #[test]
    fn characters_of_several_bytes() {
        let mut stop = matcher(&["é!", "日本"]);
        assert_eq!(stop.push("caf"), "caf");
        assert_eq!(stop.push("é"), "");
        assert_eq!(stop.push("è日"), "éè");
        assert_eq!(stop.push("本"), "");
        assert!(stop.stopped());
    }

    #[test]
    fn an_empty_stop_string_is_refused() {
        let error = StopMatcher::new(vec![], vec!["a".into(), String::new()]).unwrap_err();
        assert!(error.to_string().starts_with("--stop: "), "{error}");
    }

    /// Looks at each end of the text in turn, with no state.
    fn oracle(text: &str, stops: &[String]) -> (String, bool) {
        for (end, _) in text.char_indices().skip(1).chain([(text.len(), ' ')]) {
            let matching = stops.iter().filter(|stop| text[..end].ends_with(stop.as_str()));
            if let Some(stop) = matching.max_by_key(|stop| stop.len()) {
                return (text[..end - stop.len()].to_string(), true);
            }
        }
        (text.to_string(), false)
    }

    proptest! {
        #[test]
        fn any_cut_of_any_text_shows_the_same(
            pieces in prop::collection::vec("[abé]{0,4}", 0..12),
            stops in prop::collection::vec("[abé]{1,4}", 0..4),
        ) {
            let mut stop = StopMatcher::new(vec![], stops.clone()).unwrap();
            let mut shown: String = pieces.iter().map(|piece| stop.push(piece)).collect();
            let stopped = stop.stopped();
            shown.push_str(&stop.finish());
            prop_assert_eq!((shown, stopped), oracle(&pieces.concat(), &stops));
        }
    }
}
