//! Prompts and tokens.

use std::fmt;
use std::path::Path;

use sha2::{Digest, Sha256};
use tokenizers::{AddedToken, PostProcessor, Tokenizer, TruncationParams};

use super::hex;
use crate::error::{Error, Result, find_row};

const FILE: &str = "tokenizer.json";

/// A way to ask a question.
#[derive(Debug)]
pub struct Prompt {
    /// Its name on the command line.
    pub name: &'static str,
    /// The text, with `{q}` for the question.
    pub template: &'static str,
}

/// Every prompt by name.
pub static PROMPTS: &[Prompt] = &[
    Prompt { name: "bare", template: "{q}" },
    Prompt { name: "answer-en", template: "answer en {q}" },
    Prompt { name: "question-answer", template: "Question: {q} Answer:" },
    Prompt { name: "question-short-answer", template: "Question: {q} Short answer:" },
];

impl Prompt {
    /// The prompt with this name.
    pub fn find(name: &str) -> Result<&'static Self> {
        find_row(PROMPTS, "prompt", name, |prompt| vec![prompt.name])
    }

    /// The text that asks `question`.
    pub fn fill(&self, question: &str) -> String {
        self.template.replace("{q}", question)
    }
}

/// What a family puts around the prompt, and the tokens its processor adds to the tokenizer in memory.
#[derive(Debug, Clone)]
pub struct PromptForm {
    /// The token that stands for one image patch.
    pub image_token: &'static str,
    /// Its number according to `config.json`, which the tokenizer has to agree with.
    pub image_token_id: Option<u32>,
    /// Text between the image tokens and the prompt.
    pub before: &'static str,
    /// Text after the prompt.
    pub after: &'static str,
    /// Numbered tokens `<name0000>`: name, how many, how many digits.
    pub numbered_tokens: &'static [(&'static str, usize, usize)],
}

/// What a model can take.
#[derive(Debug, Clone, Copy)]
pub struct TextLimits {
    /// Number of tokens it knows.
    pub vocabulary: usize,
    /// Tokens of the longest prompt, those of the image left out.
    pub prompt_tokens: usize,
}

/// Turns prompts into token numbers and generated numbers into text, as the processors of transformers do.
pub struct TextProcessor {
    tokenizer: Tokenizer,
    form: PromptForm,
    limits: TextLimits,
    digest: String,
}

impl TextProcessor {
    /// Reads `tokenizer.json` and adds the family's tokens that it lacks.
    pub fn open(folder: &Path, form: PromptForm, limits: TextLimits) -> Result<Self> {
        let path = folder.join(FILE);
        let cannot = || cannot_read(&path);
        let (mut tokenizer, digest) = read_tokenizer(&path)?;
        add_tokens(&mut tokenizer, &form).map_err(|cause| cannot().caused_by(cause))?;
        if let (Some(stated), Some(found)) = (form.image_token_id, tokenizer.token_to_id(form.image_token))
            && stated != found
        {
            let cause = format!("`{}` is token {found} here, but {stated} in config.json", form.image_token);
            return Err(cannot().caused_by(cause).hint("tokenizer.json and config.json must belong together"));
        }
        Ok(Self { tokenizer, form, limits, digest })
    }

    /// Tokens of a prompt, from the one after the image tokens to the last.
    pub fn encode(&self, prompt: &str) -> Result<Vec<u32>> {
        let text = format!("{}{prompt}{}", self.form.before, self.form.after);
        let encoding = self.tokenizer.encode_fast(text, false).map_err(|cause| {
            Error::input(format!("cannot split the prompt `{prompt}` into tokens")).caused_by(cause)
        })?;
        let ids = encoding.get_ids().to_vec();
        if let Some(image) = self.tokenizer.token_to_id(self.form.image_token)
            && ids.contains(&image)
        {
            let name = self.form.image_token;
            return Err(Error::input(format!("the prompt `{prompt}` contains `{name}`, which stands for the image"))
                .hint("write the question without it"));
        }
        if ids.len() > self.limits.prompt_tokens {
            let (count, most) = (ids.len(), self.limits.prompt_tokens);
            return Err(Error::input(format!(
                "the prompt has {count} tokens, but the model takes no more than {most}"
            ))
            .hint("shorten the question"));
        }
        check_vocabulary(format_args!("the prompt `{prompt}`"), &ids, self.limits.vocabulary)?;
        Ok(ids)
    }

    /// Tokens of an answer to learn, with the token that ends it.
    ///
    /// # Errors
    /// Input error for a text without tokens, or with one that the model does not know.
    pub fn encode_answer(&self, answer: &str, end: u32) -> Result<Vec<u32>> {
        let cannot = || Error::input(format!("cannot learn the answer `{answer}`"));
        let encoding = self.tokenizer.encode_fast(answer, false).map_err(|cause| cannot().caused_by(cause))?;
        let ids = encoding.get_ids();
        let unknown = |id: &&u32| **id as usize >= self.limits.vocabulary;
        match ids.iter().find(unknown) {
            _ if ids.is_empty() => Err(cannot()
                .caused_by(Error::input("it has no tokens"))
                .hint("give the question an answer, or take it out of the set")),
            Some(id) => {
                let cause = format!("token {id} is beyond the model's vocabulary of {}", self.limits.vocabulary);
                Err(cannot().caused_by(Error::input(cause)).hint("tokenizer.json and config.json must belong together"))
            }
            None => Ok([ids, &[end]].concat()),
        }
    }

    /// The answer that generated tokens spell: special tokens left out, white space at both ends removed.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        let text = self
            .tokenizer
            .decode(tokens, true)
            .map_err(|cause| Error::internal("cannot turn generated tokens into text").caused_by(cause))?;
        Ok(text.trim().to_owned())
    }

    /// What the model can take.
    pub fn limits(&self) -> TextLimits {
        self.limits
    }

    /// SHA-256 of `tokenizer.json`.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

/// Turns whole texts into token numbers, as transformers does for encoders of text: with the special tokens that the
/// tokenizer puts around a text, and cut to what the model can take.
pub struct SentenceProcessor {
    tokenizer: Tokenizer,
    vocabulary: usize,
    digest: String,
}

impl SentenceProcessor {
    /// Reads `tokenizer.json` for a model that knows `vocabulary` tokens and takes up to `positions` of them.
    ///
    /// # Errors
    /// Input error naming the file that cannot be read, or whose special tokens alone fill all positions.
    pub fn open(folder: &Path, vocabulary: usize, positions: usize) -> Result<Self> {
        let path = folder.join(FILE);
        let (mut tokenizer, digest) = read_tokenizer(&path)?;
        let special = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        if special >= positions {
            let cause = format!("it puts {special} tokens around a text, but the model takes {positions} in all");
            return Err(cannot_read(&path)
                .caused_by(Error::input(cause))
                .hint("tokenizer.json and config.json must belong together"));
        }
        let limit = TruncationParams { max_length: positions, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(limit)).map_err(|cause| cannot_read(&path).caused_by(cause))?;
        Ok(Self { tokenizer, vocabulary, digest })
    }

    /// Tokens of a text: the first ones, if it has more than the model takes.
    ///
    /// # Errors
    /// Input error for a text without tokens, or with one that the model does not know.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let cannot = || Error::input(format!("cannot split the text `{text}` into tokens"));
        let encoding = self.tokenizer.encode_fast(text, true).map_err(|cause| cannot().caused_by(cause))?;
        let ids = encoding.get_ids().to_vec();
        if ids.is_empty() {
            return Err(cannot().caused_by(Error::input("it has no tokens")).hint("leave out texts that are empty"));
        }
        check_vocabulary(format_args!("the text `{text}`"), &ids, self.vocabulary)?;
        Ok(ids)
    }

    /// SHA-256 of `tokenizer.json`.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

/// The tokenizer in a file, and the file's SHA-256.
fn read_tokenizer(path: &Path) -> Result<(Tokenizer, String)> {
    let cannot = || cannot_read(path);
    let bytes = std::fs::read(path).map_err(|cause| {
        cannot().caused_by(cause).hint(
            "save the tokenizer with transformers (`AutoTokenizer.from_pretrained(...).save_pretrained(...)`), \
             which writes tokenizer.json",
        )
    })?;
    let mut tokenizer = Tokenizer::from_bytes(&bytes)
        .map_err(|cause| cannot().caused_by(cause).hint("the file is damaged; fetch the checkpoint again"))?;
    // Padding and cutting are this program's own; settings saved from training must not change texts.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|cause| cannot().caused_by(cause))?;
    Ok((tokenizer, hex(&Sha256::digest(&bytes))))
}

fn cannot_read(path: &Path) -> Error {
    Error::input(format!("cannot read the tokenizer `{}`", path.display()))
}

fn check_vocabulary(what: fmt::Arguments, ids: &[u32], vocabulary: usize) -> Result<()> {
    match ids.iter().find(|id| **id as usize >= vocabulary) {
        Some(id) => {
            Err(Error::input(format!("{what} has token {id}, but the model's vocabulary ends at {vocabulary}"))
                .hint("tokenizer.json and config.json must belong together"))
        }
        None => Ok(()),
    }
}

fn add_tokens(tokenizer: &mut Tokenizer, form: &PromptForm) -> tokenizers::Result<()> {
    if tokenizer.token_to_id(form.image_token).is_none() {
        tokenizer.add_special_tokens([AddedToken::from(form.image_token, true).normalized(false)])?;
    }
    for (name, count, digits) in form.numbered_tokens {
        let tokens = (0..*count).map(|number| AddedToken::from(format!("<{name}{number:0digits$}>"), false));
        tokenizer.add_tokens(tokens)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_fill_in_the_question() {
        assert_eq!(Prompt::find("question-answer").unwrap().fill("Why?"), "Question: Why? Answer:");
        assert_eq!(Prompt::find("qestion-answer").unwrap_err().to_string(), "unknown prompt `qestion-answer`");
    }
}
