-- Whoever made the proposal waits for no signature any more: its publication was refused.
ALTER TABLE proposal ADD COLUMN closed INTEGER NOT NULL DEFAULT 0;
