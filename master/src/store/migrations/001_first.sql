-- Times are Unix milliseconds; states are numbers in the order of rest::JobState.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('epoch', 0), ('secret', randomblob(32));

-- A job of one unit is this one row; `u_…` is its unit.
CREATE TABLE jobs (
    seq           INTEGER PRIMARY KEY,
    id            BLOB NOT NULL,
    fingerprint   BLOB,
    kind          TEXT NOT NULL,
    queue         TEXT NOT NULL,
    project       TEXT,
    owner         TEXT NOT NULL,
    labels        TEXT,
    max_attempts  INTEGER NOT NULL,
    timeout_ms    INTEGER NOT NULL,
    deadline      INTEGER,
    created_at    INTEGER NOT NULL,
    rest          TEXT,
    payload       BLOB,
    state         INTEGER NOT NULL,
    priority      INTEGER NOT NULL,
    run_at        INTEGER,
    started_at    INTEGER,
    finished_at   INTEGER,
    failures      INTEGER NOT NULL,
    waits_for     TEXT,
    next_index    INTEGER NOT NULL,
    next_from     INTEGER NOT NULL,
    units_done    INTEGER NOT NULL,
    workers       TEXT,
    u_state       INTEGER,
    u_attempt     INTEGER,
    u_failures    INTEGER,
    u_worker      TEXT,
    u_assigned_at INTEGER,
    u_run_at      INTEGER,
    u_tries       TEXT,
    events        TEXT NOT NULL,
    next_event    INTEGER NOT NULL,
    error         TEXT,
    result        BLOB
) STRICT;
CREATE UNIQUE INDEX jobs_id ON jobs (id);
CREATE INDEX jobs_live ON jobs (seq) WHERE state < 5;
CREATE INDEX jobs_ended ON jobs (finished_at) WHERE state >= 5;
CREATE INDEX jobs_bad ON jobs (state, seq) WHERE state > 5;

-- Payloads that are too long to be written again with every change of the row.
CREATE TABLE payloads (
    seq  INTEGER PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE units (
    seq         INTEGER NOT NULL,
    idx         INTEGER NOT NULL,
    from_       INTEGER NOT NULL,
    to_         INTEGER NOT NULL,
    state       INTEGER NOT NULL,
    attempt     INTEGER NOT NULL,
    failures    INTEGER NOT NULL,
    worker      TEXT,
    assigned_at INTEGER,
    run_at      INTEGER,
    tries       TEXT,
    output      BLOB,
    PRIMARY KEY (seq, idx)
) STRICT, WITHOUT ROWID;

CREATE TABLE workers (
    id           TEXT PRIMARY KEY,
    simple       INTEGER NOT NULL,
    language     TEXT NOT NULL,
    silent       INTEGER NOT NULL,
    drain        INTEGER NOT NULL,
    paused       INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency (
    owner      TEXT NOT NULL,
    key        TEXT NOT NULL,
    digest     BLOB NOT NULL,
    answer     TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (owner, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_age ON idempotency (created_at);
