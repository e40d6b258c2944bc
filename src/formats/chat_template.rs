//! A model's chat template: how its tokenizer's files say that a conversation becomes text (Jinja, as transformers renders it).

use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, Value as Jinja, context};
use serde::Serialize;
use serde_json::Value;

use super::json::{Object, load_object};
use crate::error::{Error, Result};

/// Steps that rendering may take: templates come with models, and loop forever if they like.
const FUEL: u64 = 10_000_000;

/// One message of a conversation.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Message<'a> {
    /// Who speaks: `system`, `user` or `assistant`.
    pub role: &'a str,
    /// What they say.
    pub content: &'a str,
}

/// A template and the file that it came from.
pub struct ChatTemplate {
    path: PathBuf,
    text: String,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Reads the template in `directory`: `chat_template.jinja`, else what `tokenizer_config.json` has, of several the one
    /// named `default`. `None` where there is none.
    ///
    /// # Errors
    /// When a file cannot be read or the template is no text.
    pub fn load(directory: impl AsRef<Path>) -> Result<Option<Self>> {
        let directory = directory.as_ref();
        let config_path = directory.join("tokenizer_config.json");
        let config = load_object(&config_path)?;
        let special = |key: &str| config.as_ref().map(|config| token(config, key)).unwrap_or_default();
        let (bos, eos) = (special("bos_token"), special("eos_token"));
        let path = directory.join("chat_template.jinja");
        match std::fs::read_to_string(&path) {
            Ok(text) => return Ok(Some(Self { path, text, bos, eos })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(&path)(error)),
        }
        let Some(config) = config else { return Ok(None) };
        let text = match config.get("chat_template") {
            None => return Ok(None),
            Some(Value::String(text)) => Some(text.as_str()),
            Some(Value::Array(all)) => all
                .iter()
                .find(|one| one.get("name").and_then(Value::as_str) == Some("default"))
                .and_then(|one| one.get("template")?.as_str()),
            Some(_) => None,
        };
        let Some(text) = text else {
            return Err(config.error("chat_template is neither a text nor has one named `default`"));
        };
        Ok(Some(Self { path: config_path, text: text.to_owned(), bos, eos }))
    }

    /// The text of a conversation; with `answer`, up to where the assistant's answer begins.
    ///
    /// # Errors
    /// When the template is no Jinja, refuses the conversation, or takes too long.
    pub fn render(&self, messages: &[Message<'_>], answer: bool) -> Result<String> {
        let blocks = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        let mut environment = Environment::new();
        environment.set_syntax(blocks.expect("the delimiters are the usual ones"));
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        let refuse = |message: String| -> std::result::Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        };
        environment.add_function("raise_exception", refuse);
        let messages = Jinja::from(Serde(messages));
        let values = context! { messages, add_generation_prompt => answer, bos_token => self.bos.as_str(), eos_token => self.eos.as_str() };
        environment.render_str(&self.text, values).map_err(|error| {
            let message =
                format!("its chat template cannot be rendered: {error}; get the file of a newer release");
            Error::file(&self.path, message)
        })
    }
}

/// A special token, which stands there as a text or with its `content`; empty where there is none.
fn token(config: &Object, key: &str) -> String {
    let value = config.get(key);
    let text = value.and_then(|value| value.get("content").unwrap_or(value).as_str());
    text.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| std::fs::write(directory.path().join(name), text).unwrap());
        directory
    }

    const CHAT: &str = "{{ bos_token }}{% for m in messages %}\n[{{ m.role.upper() }}] {{ m['content'].strip() }}\n\
                        {% endfor %}\n{% if add_generation_prompt %}[ASSISTANT]{% endif %}";

    #[test]
    fn a_conversation_becomes_text() {
        let config =
            serde_json::json!({ "bos_token": { "content": "<s>" }, "chat_template": CHAT }).to_string();
        let template =
            ChatTemplate::load(directory(&[("tokenizer_config.json", &config)]).path()).unwrap().unwrap();
        let messages = [Message { role: "user", content: " Hello " }];
        assert_eq!(template.render(&messages, true).unwrap(), "<s>[USER] Hello\n[ASSISTANT]");
        assert_eq!(template.render(&messages, false).unwrap(), "<s>[USER] Hello\n");
    }

    #[test]
    fn a_file_of_its_own_goes_before_and_of_several_the_default_is_taken() {
        let several = serde_json::json!({ "chat_template": [
            { "name": "tool_use", "template": "tools" }, { "name": "default", "template": "plain" }
        ] })
        .to_string();
        let of = |files: &[(&str, &str)]| {
            let template = ChatTemplate::load(directory(files).path()).unwrap();
            template.map(|template| template.render(&[], false).unwrap())
        };
        let config = ("tokenizer_config.json", several.as_str());
        assert_eq!(of(&[config]).as_deref(), Some("plain"));
        assert_eq!(of(&[config, ("chat_template.jinja", "own")]).as_deref(), Some("own"));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("tokenizer_config.json", "{}")]), None);
    }

    #[test]
    fn hostile_templates_are_errors_that_name_the_file() {
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}";
        for (text, what) in [
            ("{{ raise_exception('only users') }}", "only users"),
            ("{% for", "cannot be rendered"),
            (endless, "fuel"),
        ] {
            let directory = directory(&[("chat_template.jinja", text)]);
            let message = ChatTemplate::load(directory.path())
                .unwrap()
                .unwrap()
                .render(&[], false)
                .unwrap_err()
                .to_string();
            assert!(message.contains("chat_template.jinja") && message.contains(what), "{message}");
        }
        let config = directory(&[("tokenizer_config.json", r#"{"chat_template": 3}"#)]);
        assert!(ChatTemplate::load(config.path()).is_err());
    }
}
