-- Socket.IO sessions, so that they outlive the master. `secret` is the digest of what opens one.
CREATE TABLE sessions (
    id      BLOB PRIMARY KEY,
    secret  BLOB NOT NULL,
    seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_seen ON sessions (seen_at);

-- What a session is still to be told: a job's events behind `after`, and its answer where it is a question.
CREATE TABLE follows (
    session  BLOB NOT NULL,
    job      BLOB NOT NULL,
    after    INTEGER,
    question INTEGER NOT NULL,
    PRIMARY KEY (session, job)
) STRICT, WITHOUT ROWID;
