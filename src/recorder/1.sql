-- Version 1. Runs within the transaction that opens a file; sets the version itself.
PRAGMA application_id = 1953654130;
PRAGMA user_version = 1;

-- Grants, and what they are found by.
CREATE TABLE grants (
    id TEXT PRIMARY KEY,
    iss TEXT NOT NULL,
    sid TEXT,
    sub TEXT,
    client_id TEXT,
    began INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    offline INTEGER NOT NULL,
    ended INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX grants_by_session ON grants (iss, sid);
CREATE INDEX grants_by_subject ON grants (iss, sub);
CREATE INDEX grants_by_client ON grants (iss, client_id);
CREATE INDEX grants_by_expiry ON grants (expires);

-- Tokens, by what revokes them and by their digest (scopes in JSON), and what they say of themselves (JSON).
CREATE TABLE members (
    token TEXT PRIMARY KEY,
    alias TEXT UNIQUE,
    grant_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    expires INTEGER NOT NULL,
    spent INTEGER NOT NULL,
    says TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX members_by_grant ON members (grant_id);
CREATE INDEX members_by_expiry ON members (expires);
