-- What was computed by a worker that was found to lie when the job had ended.
ALTER TABLE jobs ADD COLUMN suspect INTEGER NOT NULL DEFAULT 0;
ALTER TABLE units ADD COLUMN suspect INTEGER NOT NULL DEFAULT 0;
