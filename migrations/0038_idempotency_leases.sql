-- Who is doing what a key was claimed for, and until when the claim holds unless it is renewed: one whose process
-- died is taken over. Null in rows of before, which nobody is doing any more.

ALTER TABLE idempotency_keys ADD COLUMN owner TEXT;
ALTER TABLE idempotency_keys ADD COLUMN held_until BIGINT;
