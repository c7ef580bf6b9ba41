//! Sentences of running text.

/// The sentences of a text, each on one line with single blanks: they end at a full stop, exclamation or question mark
/// before a blank, and at empty lines. Lines that end in a colon, which name the speaker of a play, are left out.
pub fn sentences(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for paragraph in text.split("\n\n") {
        let mut sentence = String::new();
        for line in paragraph.lines().filter(|line| !line.trim_end().ends_with(':')) {
            for word in line.split_whitespace() {
                if !sentence.is_empty() {
                    sentence.push(' ');
                }
                sentence.push_str(word);
                let ends = word.trim_end_matches(['"', '\'', ')', '\u{201d}']).ends_with(['.', '!', '?']);
                let title = matches!(word, "Mr." | "Mrs." | "Dr." | "St.");
                if ends && !title {
                    found.push(std::mem::take(&mut sentence));
                }
            }
        }
        if !sentence.is_empty() {
            found.push(sentence);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_at_marks_and_empty_lines_but_not_after_titles() {
        let text = "First Citizen:\nSpeak,\nspeak! What?\n\n\"My dear Mr. Bennet,\" said she. And\nwent";
        let want = ["Speak, speak!", "What?", "\"My dear Mr. Bennet,\" said she.", "And went"];
        assert_eq!(sentences(text), want);
    }
}
