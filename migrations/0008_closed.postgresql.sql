-- Whoever made the proposal waits for no signature any more: its publication was refused.
ALTER TABLE proposal ADD COLUMN closed bigint NOT NULL DEFAULT 0;
