//! The special tokens that the post-processor of a tokenizer.json adds before and after a text.
//!
//! Supported are `TemplateProcessing` for a single text, `RobertaProcessing`, `BertProcessing` and `ByteLevel`,
//! which adds none. In a `Sequence`, at most one may add tokens. The rules are those of Hugging Face `tokenizers`
//! 0.23.3, whose `Sequence` fails at a second template.

use crate::Result;
use crate::tokenize::spec::json_node::JsonNode;

/// Ids before and after the ids of a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) before: Vec<u32>,
    pub(crate) after: Vec<u32>,
}

impl Template {
    /// The template of the `post_processor` of a file.
    pub(crate) fn from_json(node: &JsonNode<'_>) -> Result<Self> {
        match node.kind()? {
            Some("TemplateProcessing") => single_template(node),
            Some("RobertaProcessing" | "BertProcessing") => Ok(Self {
                before: vec![pair_id(&node.key("cls"))?],
                after: vec![pair_id(&node.key("sep"))?],
            }),
            Some("Sequence") => {
                let items = node.key("processors").items()?;
                let all: Vec<Self> = items.iter().map(Self::from_json).collect::<Result<_>>()?;
                let mut adding = all.into_iter().filter(|item| *item != Self::default());
                match (adding.next(), adding.next()) {
                    (Some(_), Some(_)) => {
                        Err(node.wrong("two processors add tokens, expected one"))
                    }
                    (one, _) => Ok(one.unwrap_or_default()),
                }
            }
            // Null or `ByteLevel`: loading refuses other types.
            _ => Ok(Self::default()),
        }
    }

    /// The template that adds no tokens, as a constant, which `default` is not.
    pub(crate) const fn empty() -> Self {
        Self {
            before: Vec::new(),
            after: Vec::new(),
        }
    }

    /// All ids that the template adds.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u32> {
        self.before.iter().chain(&self.after).copied()
    }
}

fn single_template(node: &JsonNode<'_>) -> Result<Template> {
    let special = node.key("special_tokens");
    let mut template = Template::default();
    let mut is_after = false;
    for item in node.key("single").items()? {
        // The text. Loading refuses a template without exactly one: see `check_template` in `tokenizer_json`.
        if !item.key("Sequence").is_null() {
            is_after = true;
            continue;
        }
        let token = item.key("SpecialToken");
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

/// The id of a pair of a token and its id, such as `["</s>", 2]`.
fn pair_id(node: &JsonNode<'_>) -> Result<u32> {
    match &node.items()?[..] {
        [_, id] => id.number(),
        _ => Err(node.wrong("expected a token and its id")),
    }
}
