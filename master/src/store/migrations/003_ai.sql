-- Users' own API keys, sealed, until their job ends.
CREATE TABLE credentials (
    job    BLOB PRIMARY KEY,
    sealed BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE conversations (
    id         BLOB PRIMARY KEY,
    owner      TEXT NOT NULL,
    title      TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX conversations_owner ON conversations (owner, updated_at);
CREATE INDEX conversations_age ON conversations (updated_at);

-- Questions have even indices, their answers the odd ones behind them; `answer` says how one ended.
CREATE TABLE messages (
    conversation BLOB NOT NULL,
    idx          INTEGER NOT NULL,
    job          BLOB NOT NULL,
    created_at   INTEGER NOT NULL,
    text         TEXT NOT NULL,
    answer       TEXT,
    PRIMARY KEY (conversation, idx)
) STRICT, WITHOUT ROWID;
