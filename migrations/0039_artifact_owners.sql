-- Whose artifact it is: the same content brought by two people is two records over the same bytes, so that one may use
-- his own where the other's is part of a dataset that he may not see. Null in rows of before, and for the system's.

ALTER TABLE artifacts ADD COLUMN owner TEXT;
DROP INDEX artifacts__digest_unique;
CREATE UNIQUE INDEX artifacts__digest_unique ON artifacts (department, kind, COALESCE(owner, ''), digest) WHERE deleted_at IS NULL;
