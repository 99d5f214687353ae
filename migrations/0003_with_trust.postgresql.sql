-- Whether a rollback took what only ever tightens back, too. Until now its message began with it.
ALTER TABLE journal ADD COLUMN with_trust bigint NOT NULL DEFAULT 0;
UPDATE journal SET with_trust = 1 WHERE origin <> 0 AND substr(message, 1, 12) = 'with trust: ';
