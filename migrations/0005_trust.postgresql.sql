-- What shows that a row was written by a replica, and not by whoever can write to the database.

-- Of the sources as the request brought them; and a keyed digest of all that the row says. Empty:
-- of a release before, which is signed by nobody any more.
ALTER TABLE proposal ADD COLUMN sources_digest bytea NOT NULL DEFAULT '';
ALTER TABLE proposal ADD COLUMN warrant bytea NOT NULL DEFAULT '';

-- Of what was asked for under the request's id. Empty: of a release before.
ALTER TABLE journal ADD COLUMN request_digest bytea NOT NULL DEFAULT '';

-- Of the address: followers send the token there. Empty: of a release before.
ALTER TABLE leader ADD COLUMN warrant bytea NOT NULL DEFAULT '';
