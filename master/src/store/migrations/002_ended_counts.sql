-- How many jobs have ended, by state: counted as they end, so that no start has to count the rows.
CREATE TABLE ended (
    state INTEGER PRIMARY KEY,
    jobs  INTEGER NOT NULL
) STRICT;
INSERT INTO ended SELECT s.column1, (SELECT count(*) FROM jobs WHERE state = s.column1) FROM (VALUES (5), (6), (7)) AS s;

CREATE TRIGGER ended_at_once AFTER INSERT ON jobs WHEN new.state >= 5
BEGIN
    UPDATE ended SET jobs = jobs + 1 WHERE state = new.state;
END;
CREATE TRIGGER ended_changed AFTER UPDATE OF state ON jobs WHEN old.state <> new.state AND max(old.state, new.state) >= 5
BEGIN
    UPDATE ended SET jobs = jobs - 1 WHERE state = old.state;
    UPDATE ended SET jobs = jobs + 1 WHERE state = new.state;
END;
CREATE TRIGGER ended_deleted AFTER DELETE ON jobs WHEN old.state >= 5
BEGIN
    UPDATE ended SET jobs = jobs - 1 WHERE state = old.state;
END;
