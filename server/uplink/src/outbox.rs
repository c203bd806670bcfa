//! Words that are each said once, in the order they came, and kept until they have arrived. There are never many.

use std::collections::VecDeque;

use obol_stream::Word;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The most words that wait.
const MAX_WORDS: usize = 16;

/// See the module's header. Whoever speaks takes from it; one at a time.
#[derive(Debug, Default)]
pub struct Outbox {
    words: Mutex<VecDeque<Word>>,
    more: Notify,
}

impl Outbox {
    /// Puts a word behind the others.
    ///
    /// # Errors
    ///
    /// Gives it back where too many wait.
    pub fn put(&self, word: Word) -> Result<(), Word> {
        let mut words = self.words.lock();
        if words.len() >= MAX_WORDS {
            return Err(word);
        }
        words.push_back(word);
        self.more.notify_one();
        Ok(())
    }

    /// The first word, once there is one. It stays.
    pub(crate) async fn first(&self) -> Word {
        loop {
            let more = self.more.notified();
            if let Some(word) = self.words.lock().front() {
                return word.clone();
            }
            more.await;
        }
    }

    /// Takes all that wait, where nobody speaks.
    pub fn take_all(&self) -> Vec<Word> {
        self.words.lock().drain(..).collect()
    }

    /// The first word has arrived, or never will.
    pub(crate) fn done(&self) {
        self.words.lock().pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(unsaid: u64) -> Word {
        Word::TokenStolen { session: None, audience: "a".to_owned(), tool: "t".to_owned(), unsaid }
    }

    #[tokio::test]
    async fn words_stay_until_they_have_arrived_and_no_more_are_kept_than_fit() {
        let outbox = Outbox::default();
        for number in 0..16 {
            outbox.put(word(number)).unwrap();
        }
        assert_eq!(outbox.put(word(99)), Err(word(99)));
        for number in 0..16 {
            assert_eq!(outbox.first().await, word(number));
            assert_eq!(outbox.first().await, word(number), "it was not said yet");
            outbox.done();
        }
        let waits = async {
            let first = outbox.first().await;
            assert_eq!(first, word(7));
        };
        tokio::join!(waits, async { outbox.put(word(7)).unwrap() });
    }
}
