-- Version 1 of the tables behind tower-revocation. Runs in one transaction; {s} is the schema.
DO $$ BEGIN
    -- Not IF NOT EXISTS: that asks for the right to create schemas even where there is nothing to create.
    IF to_regnamespace('{s}') IS NULL THEN CREATE SCHEMA {s}; END IF;
END $$;

-- Settings of each fleet; under the namespace '' those of the schema.
CREATE TABLE {s}.meta (
    namespace text NOT NULL,
    key text NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (namespace, key)
);

INSERT INTO {s}.meta VALUES
    ('', 'schema_version', '1'),
    ('', 'incarnation', decode(replace(gen_random_uuid()::text, '-', ''), 'hex'));

-- All revocations and lifts. In one namespace, seq becomes visible in its order: see publish.
CREATE TABLE {s}.changes (
    seq bigint GENERATED ALWAYS AS IDENTITY,
    retain_until bigint NOT NULL,
    namespace text NOT NULL,
    key bytea NOT NULL,
    record bytea NOT NULL,
    PRIMARY KEY (namespace, seq)
);

CREATE INDEX changes_by_key ON {s}.changes (namespace, key);
CREATE INDEX changes_by_retention ON {s}.changes (namespace, retain_until);

-- What the nodes say of themselves (JSON).
CREATE TABLE {s}.nodes (
    namespace text NOT NULL,
    node text NOT NULL,
    status text NOT NULL,
    PRIMARY KEY (namespace, node)
);

-- Digests of messages that count once, of what they came in, and until when they must be remembered (Unix seconds).
CREATE TABLE {s}.claims (
    until bigint NOT NULL,
    finished boolean NOT NULL,
    namespace text NOT NULL,
    digest bytea NOT NULL,
    message bytea NOT NULL,
    PRIMARY KEY (namespace, digest)
);

CREATE INDEX claims_by_time ON {s}.claims (namespace, until);

-- What nodes are about to record.
CREATE TABLE {s}.intents (
    namespace text NOT NULL,
    id bigint NOT NULL,
    record bytea NOT NULL,
    PRIMARY KEY (namespace, id)
);

-- Which life of the store this is: what is stored, the server's timeline (it changes with a promotion and with a
-- recovery to a point in time), the database and the table (they change with a restored dump).
CREATE VIEW {s}.life AS
    SELECT concat_ws('-', encode(meta.value, 'hex'), left(pg_walfile_name(pg_current_wal_lsn()), 8),
        pg_database.oid, '{s}.changes'::regclass::oid) AS incarnation
    FROM {s}.meta, pg_database
    WHERE meta.namespace = '' AND meta.key = 'incarnation' AND pg_database.datname = current_database();

-- Where a fleet's followers listen.
CREATE FUNCTION {s}.channel(fleet text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT concat_ws('_', 'tower_revocation', '{s}.changes'::regclass::oid, to_hex(hashtextextended(fleet, 0)))
$$;

-- Stores changes, and returns where they are. Each statement in here sees what was committed before it began, and the lock
-- is given back after the commit is visible: whoever sees a seq sees all lower ones of its namespace.
CREATE FUNCTION {s}.publish(fleet text, keys bytea[], untils bigint[], records bytea[], OUT incarnation text, OUT head bigint)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended({s}.channel(fleet), 0));
    INSERT INTO {s}.changes (namespace, key, retain_until, record)
        SELECT fleet, batch.key, batch.until, batch.record
        FROM unnest(keys, untils, records) WITH ORDINALITY AS batch (key, until, record, nth)
        ORDER BY batch.nth;
    PERFORM pg_notify({s}.channel(fleet), '');
    SELECT life.incarnation INTO STRICT incarnation FROM {s}.life;
    SELECT max(changes.seq) INTO STRICT head FROM {s}.changes WHERE changes.namespace = fleet;
END
$$;
