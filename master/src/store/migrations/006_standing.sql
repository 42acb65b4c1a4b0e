-- What the master thinks of a worker (JSON), where that is worth keeping.
ALTER TABLE workers ADD COLUMN standing TEXT;
