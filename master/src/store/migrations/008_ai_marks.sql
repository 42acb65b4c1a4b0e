-- The result is that of another job of the same kind and payload; NULL where it was computed.
ALTER TABLE jobs ADD COLUMN cached INTEGER;
-- Questions whose tokens are estimated.
ALTER TABLE usage ADD COLUMN estimated INTEGER NOT NULL DEFAULT 0;
