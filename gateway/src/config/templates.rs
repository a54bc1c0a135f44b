//! `[templates]`: what rendering a chat template may take.

use serde::{Deserialize, Serialize};
use sluice_engine::tokenizer::template::TemplateLimits;

use super::{Problems, human};

/// `[templates]`: a chat template comes with its model and is code; a rendering that passes one of these limits is
/// answered 400.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TemplatesConfig {
    /// Bytes of a rendered prompt, and of each text that a template makes on the way.
    #[serde(with = "human::size")]
    pub max_text: usize,
    /// Bytes of all that a rendering has made and still holds.
    #[serde(with = "human::size")]
    pub max_memory: usize,
    /// Steps of a rendering; an input of up to 32 KiB has a tenth of them.
    pub max_steps: u64,
}

impl Default for TemplatesConfig {
    fn default() -> Self {
        let TemplateLimits {
            text,
            memory,
            steps,
        } = TemplateLimits::default();
        Self {
            max_text: text,
            max_memory: memory,
            max_steps: steps,
        }
    }
}

impl TemplatesConfig {
    /// As the engine takes it.
    #[must_use]
    pub const fn limits(&self) -> TemplateLimits {
        TemplateLimits {
            text: self.max_text,
            memory: self.max_memory,
            steps: self.max_steps,
        }
    }

    pub(super) fn check(&self, problems: &mut Problems) {
        let least = "must be at least";
        problems.expect(
            self.max_text >= 1 << 10,
            "templates.max_text",
            &format!("{least} 1 KiB"),
        );
        problems.expect(
            self.max_memory >= self.max_text,
            "templates.max_memory",
            &format!("{least} templates.max_text"),
        );
        problems.expect(
            self.max_steps >= 1_000,
            "templates.max_steps",
            &format!("{least} 1000"),
        );
    }
}
