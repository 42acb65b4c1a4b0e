-- Where mining work comes from. `config` and `record` are JSON, `secrets` what is never shown of it.
CREATE TABLE sources (
    id         TEXT PRIMARY KEY,
    kind       TEXT NOT NULL,
    config     TEXT NOT NULL,
    secrets    BLOB NOT NULL,
    priority   INTEGER NOT NULL,
    requires   TEXT NOT NULL,
    wanted     INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    record     TEXT NOT NULL
) STRICT, WITHOUT ROWID;
