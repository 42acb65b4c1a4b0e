//! The built-in demo: shows how an answer streams where nobody has a key. No AI stands behind it, and its text says so.

use std::time::Duration;

use async_trait::async_trait;
use flota_proto::kinds::{ChatPayload, EmbedPayload, EmbedResult, Finish, Usage};
use secrecy::SecretString;

use super::call::Call;
use super::fault::Fault;
use super::provider::{Answer, Ask, Model, Provider};

/// The id of its model.
pub const DEMO_MODEL: &str = "demo";

const WORD_PAUSE: Duration = Duration::from_millis(40);

const TEXT: &str = "[Demo] No AI answered this: it is a fixed text built into Flota, streamed word by word so that you can \
see how an answer arrives, which worker sent it and how Stop works. For real answers enter a Gemini API key (free at \
https://aistudio.google.com/apikey) or set up a local AI.\n\n\
[Demo] Ninguna IA respondió esto: es un texto fijo incluido en Flota, enviado palabra por palabra para mostrar cómo llega una \
respuesta, qué worker la envía y cómo funciona Detener. Para respuestas reales ingrese una clave de API de Gemini (gratis en \
https://aistudio.google.com/apikey) o configure una IA local.";

/// The demo provider.
#[derive(Debug)]
pub struct Demo;

#[async_trait]
impl Provider for Demo {
    fn name(&self) -> &'static str {
        "demo"
    }

    fn title(&self) -> &'static str {
        "the demo"
    }

    async fn stream(&self, _ask: Ask<'_>, _chat: &ChatPayload, call: &mut Call) -> Result<Answer, Fault> {
        for word in TEXT.split_inclusive(' ') {
            call.wait(tokio::time::sleep(WORD_PAUSE)).await?;
            call.text(word);
        }
        Ok(Answer {
            text: TEXT.to_owned(),
            model: None,
            finish: Finish::Complete,
            reason: "stop".to_owned(),
            usage: Usage::default(),
        })
    }

    async fn embed(&self, _ask: Ask<'_>, _embed: &EmbedPayload, _call: &mut Call) -> Result<EmbedResult, Fault> {
        Err(Fault::ModelGone)
    }

    async fn models(&self, _key: Option<&SecretString>, _call: &mut Call) -> Result<Vec<Model>, Fault> {
        Ok(vec![Model { name: DEMO_MODEL.to_owned(), chats: true, embeds: false }])
    }
}
