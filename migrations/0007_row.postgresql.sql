-- What shows that a node was let in by a replica, and not by whoever can write to the database.

-- The present certificate in DER: who the node is, its labels, names and status key are what this
-- says. Empty: of a release before, until the node renews; status_key and labels are such a row's,
-- and in others zeroes and empty.
ALTER TABLE node ADD COLUMN certificate bytea NOT NULL DEFAULT '';

-- A keyed digest of all that the row says. Empty: of a release before, which lets nobody in.
ALTER TABLE join_token ADD COLUMN warrant bytea NOT NULL DEFAULT '';
