//! The special tokens that a tokenizer.json's post-processor puts around a text.
//!
//! `TemplateProcessing` for a single text, `RobertaProcessing` and `BertProcessing`, alone or as the only one
//! of a `Sequence` that adds tokens; `ByteLevel` adds none. Rules of the format: Hugging Face `tokenizers`
//! 0.23.3, whose `Sequence` fails at a second template.

use crate::Result;
use crate::tokenize::spec::node::Node;

/// Ids before and after the ids of a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) before: Vec<u32>,
    pub(crate) after: Vec<u32>,
}

impl Template {
    /// The template of a file's post-processor.
    pub(crate) fn of(node: &Node<'_>) -> Result<Self> {
        match node.kind()? {
            Some("TemplateProcessing") => of_single(node),
            Some("RobertaProcessing" | "BertProcessing") => Ok(Self {
                before: vec![pair_id(&node.key("cls"))?],
                after: vec![pair_id(&node.key("sep"))?],
            }),
            Some("Sequence") => {
                let items = node.key("processors").items()?;
                let all: Vec<Self> = items.iter().map(Self::of).collect::<Result<_>>()?;
                let mut adding = all.into_iter().filter(|item| *item != Self::default());
                match (adding.next(), adding.next()) {
                    (Some(_), Some(_)) => {
                        Err(node.wrong("two processors add tokens, expected one"))
                    }
                    (one, _) => Ok(one.unwrap_or_default()),
                }
            }
            _ => Ok(Self::default()),
        }
    }

    /// The template that adds no tokens.
    pub(crate) const fn nothing() -> Self {
        Self {
            before: Vec::new(),
            after: Vec::new(),
        }
    }

    /// All ids that it adds.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u32> {
        self.before.iter().chain(&self.after).copied()
    }
}

fn of_single(node: &Node<'_>) -> Result<Template> {
    let special = node.key("special_tokens");
    let mut template = Template::default();
    let mut is_after = false;
    for item in node.key("single").items()? {
        let token = item.key("SpecialToken");
        if token.is_null() {
            is_after = true; // The text: there is exactly one.
            continue;
        }
        let side = match is_after {
            true => &mut template.after,
            false => &mut template.before,
        };
        for id in special.key(token.key("id").text()?).key("ids").items()? {
            side.push(id.number()?);
        }
    }
    Ok(template)
}

/// The id of `["</s>", 2]`.
fn pair_id(node: &Node<'_>) -> Result<u32> {
    match &node.items()?[..] {
        [_, id] => id.number(),
        _ => Err(node.wrong("expected a token and its id")),
    }
}
