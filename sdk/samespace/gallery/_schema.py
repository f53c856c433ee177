"""What a gallery's database holds, and which software may write to it."""

SCHEMA = 1
CORRECTED = 2
"""Schema of a gallery with hub corrections: software that knows only the first one would add items
without their bias, so it has to refuse."""

UPGRADED = 3
"""Schema of a gallery that keeps the vectors from before an upgrade, or side information, and
perhaps corrections too: software that knows nothing of them would lose or mix them up when it
changes an item."""

UPGRADE = "upgrade"
"""The setting that says which upgrade is under way, or has its old vectors kept."""

SIDE = "side"
"""The setting that says who makes the side information that is kept."""

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE models (
    id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL, variant_sha256 TEXT NOT NULL,
    identity TEXT NOT NULL, certificate TEXT, crc INTEGER NOT NULL,
    UNIQUE (fingerprint, variant_sha256)
);
CREATE TABLE items (
    key INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, model INTEGER NOT NULL,
    vector BLOB NOT NULL, payload TEXT, crc INTEGER NOT NULL
);
CREATE TABLE tombstones (seq INTEGER PRIMARY KEY AUTOINCREMENT, key INTEGER NOT NULL);
"""
