-- What AI jobs used, by day (since 1970, UTC), owner, provider and model; money in millionths.
CREATE TABLE usage (
    day            INTEGER NOT NULL,
    owner          TEXT NOT NULL,
    provider       TEXT NOT NULL,
    model          TEXT NOT NULL,
    own_key        INTEGER NOT NULL,
    requests       INTEGER NOT NULL,
    failed         INTEGER NOT NULL,
    cached         INTEGER NOT NULL,
    input_tokens   INTEGER NOT NULL,
    output_tokens  INTEGER NOT NULL,
    thought_tokens INTEGER NOT NULL,
    micros         INTEGER NOT NULL,
    PRIMARY KEY (day, owner, provider, model, own_key)
) STRICT, WITHOUT ROWID;
