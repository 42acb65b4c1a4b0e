//! What can be asked about conversations, and who may.

use std::fmt;
use std::str::FromStr;

use flota_proto::Timestamp;
use flota_proto::conversations::{Conversation, ConversationMessage};
use flota_proto::rest::Page;
use secrecy::SecretString;
use uuid::Uuid;

use crate::handle::{Command, Handle, Refused, Reply};

/// A conversation as a caller names it: its owner opens it, and who knows its secret.
#[derive(Clone, Debug)]
pub struct Access {
    /// Which.
    pub id: Uuid,
    /// Who calls.
    pub owner: String,
    /// What the caller knows.
    pub secret: Option<SecretString>,
}

/// Where a page of conversations ended: the next one has what was touched before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// When its last one was touched.
    pub at: Timestamp,
    /// Which that is.
    pub id: Uuid,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.at.0, self.id)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (at, id) = text.split_once(':').ok_or(())?;
        Ok(Self { at: Timestamp(at.parse().map_err(drop)?), id: id.parse().map_err(drop)? })
    }
}

/// One question about conversations.
#[derive(Debug)]
#[allow(missing_docs)] // the calls of `Handle` say what each is for
pub enum Ask {
    Create {
        owner: String,
        id: Option<Uuid>,
        title: Option<String>,
        reply: Reply<Conversation>,
    },
    List {
        owner: String,
        search: Option<String>,
        limit: usize,
        cursor: Option<Cursor>,
        reply: Reply<Page<Conversation>>,
    },
    Get {
        access: Access,
        reply: Reply<Conversation>,
    },
    Rename {
        access: Access,
        title: String,
        reply: Reply<Conversation>,
    },
    Delete {
        access: Access,
        reply: Reply<()>,
    },
    Truncate {
        access: Access,
        from: u32,
        reply: Reply<Conversation>,
    },
    Messages {
        access: Access,
        limit: usize,
        from: u32,
        reply: Reply<Page<ConversationMessage>>,
    },
}

impl Ask {
    /// Answers whoever waits for it with a refusal.
    pub fn refuse(self, refused: Refused) {
        match self {
            Self::Create { reply, .. }
            | Self::Get { reply, .. }
            | Self::Rename { reply, .. }
            | Self::Truncate { reply, .. } => drop(reply.send(Err(refused))),
            Self::List { reply, .. } => drop(reply.send(Err(refused))),
            Self::Delete { reply, .. } => drop(reply.send(Err(refused))),
            Self::Messages { reply, .. } => drop(reply.send(Err(refused))),
        }
    }
}

macro_rules! call {
    ($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) -> $answer:ty, $variant:ident) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// [`Refused`] says why; of a conversation that the caller may not see only that there is none.
        pub async fn $name(&self, $($arg: $type),*) -> Result<$answer, Refused> {
            self.ask(|reply| Command::Conversation(Box::new(Ask::$variant { $($arg,)* reply }))).await
        }
    };
}

impl Handle {
    call!(
        /// Begins a conversation.
        conversation_create(owner: String, id: Option<Uuid>, title: Option<String>) -> Conversation, Create
    );
    call!(
        /// A page of an owner's conversations, latest first, with `search` in their title or in a message.
        conversations(owner: String, search: Option<String>, limit: usize, cursor: Option<Cursor>) -> Page<Conversation>, List
    );
    call!(
        /// One conversation.
        conversation(access: Access) -> Conversation, Get
    );
    call!(
        /// Gives a conversation another title.
        conversation_rename(access: Access, title: String) -> Conversation, Rename
    );
    call!(
        /// Deletes a conversation; what is asked in it is cancelled.
        conversation_delete(access: Access) -> (), Delete
    );
    call!(
        /// Deletes the messages from `from` on, to ask anew from there.
        conversation_truncate(access: Access, from: u32) -> Conversation, Truncate
    );
    call!(
        /// A page of messages from the index `from` on.
        conversation_messages(access: Access, limit: usize, from: u32) -> Page<ConversationMessage>, Messages
    );
}
