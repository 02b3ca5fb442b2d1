//! The running configuration's text beside that of the file.
//!
//! Owns both texts, and which changes the file does not have. Never reads or writes a file. Pure.

use super::{Document, Edit, EditError, apply};
use crate::control::socket::Code;

/// The text that is in force.
#[derive(Clone, Debug)]
pub struct Running {
    /// Of the file, when it was read or written last.
    file: String,
    /// In force.
    text: String,
    /// The tree of `text`, where one was needed.
    document: Option<Document>,
    /// Edits since `file`.
    edits: usize,
}

/// A text that would be in force after edits.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The text.
    pub text: String,
    document: Document,
    edits: usize,
}

impl Running {
    /// The file's text is in force.
    pub fn new(text: String) -> Running {
        Running { file: text.clone(), text, document: None, edits: 0 }
    }

    /// The text in force.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the file had when it was read or written last.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Changes by command that the file does not have.
    pub fn unsaved(&self) -> usize {
        if self.text == self.file { 0 } else { self.edits.max(1) }
    }

    /// What edits would make of the text.
    ///
    /// # Errors
    /// [`EditError`]; the text is as it was.
    pub fn draft(&mut self, edits: &[Edit]) -> Result<Draft, EditError> {
        let mut document = match self.document.take() {
            Some(document) => document,
            None => Document::read(&self.text).map_err(|why| EditError::new(Code::Failed, why))?,
        };
        let text = apply(&mut document, edits)?;
        Ok(Draft { text, document, edits: edits.len() })
    }

    /// A draft is in force.
    pub fn take(&mut self, draft: Draft) {
        self.edits += draft.edits;
        (self.text, self.document) = (draft.text, Some(draft.document));
    }

    /// The file has this text now.
    pub fn saved(&mut self, text: String) {
        self.file = text;
        if self.text == self.file {
            self.edits = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_saved_is_known() {
        let text = "[timeouts]\nudp = 30\n";
        let mut running = Running::new(text.to_owned());
        let edit = |udp: u32| -> Vec<Edit> {
            let edit = json!({ "do": "edit-table", "table": "timeouts", "keys": { "udp": udp } });
            vec![serde_json::from_value(edit).expect("is an edit")]
        };
        let draft = running.draft(&edit(40)).expect("is made");
        assert_eq!((running.text(), running.unsaved()), (text, 0), "a draft alone changes nothing");
        running.take(draft);
        assert_eq!((running.text(), running.unsaved()), ("[timeouts]\nudp = 40\n", 1));
        assert!(running.draft(&[Edit::RemoveService { service: "x".to_owned() }]).is_err());
        assert_eq!((running.text(), running.unsaved()), ("[timeouts]\nudp = 40\n", 1), "nor does one that fails");
        let before = running.text().to_owned();
        let draft = running.draft(&edit(50)).expect("is made");
        running.take(draft);
        running.saved(before);
        assert_eq!(running.unsaved(), 2, "what was saved meanwhile is not all");
        let draft = running.draft(&edit(40)).expect("is made");
        running.take(draft);
        assert_eq!((running.unsaved(), running.file()), (0, "[timeouts]\nudp = 40\n"), "back to what the file has");
    }
}
