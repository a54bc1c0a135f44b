-- Who alone may do something for a while: drive a work order, for example. The token goes up with every
-- change of hands, so that a holder who was too slow is known by it.

CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    token BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
