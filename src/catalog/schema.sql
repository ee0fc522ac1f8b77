-- The catalog's tables, format 1 (and those of `schema_added.sql`). What costs is the number of random pages a command dirties, not rows: rows
-- appended at a table's end are nearly free, so nodes, extents and the dead list are keyed by growing ids.

CREATE TABLE dentry(                 -- what is visible, and nothing else: LIST meets no marker
  parent INTEGER NOT NULL, name BLOB NOT NULL,      -- a directory's name ends in '/'
  kind INTEGER NOT NULL,             -- 0 object, 1 directory, 2 linked or open for write (size etc. in node)
  ino INTEGER NOT NULL, seq INTEGER NOT NULL,
  flags INTEGER NOT NULL,            -- 1: the null version; 2: of another storage class than STANDARD (node.attrs)
  size_bytes INTEGER, mtime_ns INTEGER, etag BLOB,  -- what LIST shows; 16 bytes of MD5, or 16 + part count (u32 LE)
  PRIMARY KEY(parent,name)) WITHOUT ROWID;
CREATE TABLE version(                -- noncurrent versions, delete markers (3), directories that hold only versions (1, seq 0)
  parent INTEGER NOT NULL, name BLOB NOT NULL, seq INTEGER NOT NULL,
  kind INTEGER NOT NULL, ino INTEGER NOT NULL, flags INTEGER NOT NULL,
  size_bytes INTEGER, mtime_ns INTEGER, etag BLOB, vid BLOB,
  PRIMARY KEY(parent,name,seq DESC)) WITHOUT ROWID;
CREATE INDEX version_null ON version(parent,name) WHERE flags & 1;     -- the few null versions that are not visible
CREATE TABLE dir(ino INTEGER PRIMARY KEY, parent INTEGER NOT NULL, name BLOB NOT NULL, attrs BLOB);
CREATE TABLE node(                   -- inode, content and chunk in one; a one-chunk object's id is its chunk's
  id INTEGER PRIMARY KEY,
  nlink INTEGER NOT NULL,            -- names (dentries and versions); 0: body only
  refs INTEGER NOT NULL,             -- uses of this body: 1 while named or open, 1 per node that shares it, 1 per extent in it
  body INTEGER NOT NULL,             -- 0 own, else the node whose body is shared (copied before it is changed)
  form INTEGER NOT NULL,             -- 0 empty, 1 chunk, 2 extents, 3 inline, 4 multipart
  attrs BLOB, place BLOB);           -- versioned binary: types.rs
CREATE TABLE extent(ino INTEGER NOT NULL, off INTEGER NOT NULL, chunk INTEGER NOT NULL,  -- off = part << 40 | offset
  chunk_off INTEGER NOT NULL, len_bytes INTEGER NOT NULL, PRIMARY KEY(ino,off)) WITHOUT ROWID;
CREATE TABLE inline(ino INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE upload(bucket INTEGER NOT NULL, key BLOB NOT NULL, id INTEGER NOT NULL,     -- id = the future node's
  created_ns INTEGER NOT NULL, attrs BLOB NOT NULL, PRIMARY KEY(bucket,key,id)) WITHOUT ROWID;
CREATE TABLE part(upload INTEGER NOT NULL, num INTEGER NOT NULL, size_bytes INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL, etag BLOB NOT NULL, checksums BLOB, PRIMARY KEY(upload,num)) WITHOUT ROWID;
CREATE TABLE completed(id INTEGER PRIMARY KEY, bucket INTEGER NOT NULL, key BLOB NOT NULL,
  at_ns INTEGER NOT NULL, digest BLOB NOT NULL, outcome BLOB NOT NULL); -- so that a retried Complete gets the first answer
CREATE TABLE dead(seq INTEGER PRIMARY KEY, id INTEGER NOT NULL,      -- each row: node `id` lost one use; drained later
  named INTEGER NOT NULL);           -- 1: the use was a name; 0: a share of its body, an extent in it, or an upload
CREATE TABLE reclaim(seq INTEGER PRIMARY KEY, chunk INTEGER NOT NULL, died INTEGER NOT NULL, place BLOB NOT NULL);
CREATE TABLE repair(chunk INTEGER PRIMARY KEY, missing BLOB NOT NULL);
CREATE TABLE opened(ino INTEGER NOT NULL, session INTEGER NOT NULL, parent INTEGER NOT NULL,
  name BLOB NOT NULL, published INTEGER NOT NULL, PRIMARY KEY(ino,session)) WITHOUT ROWID;
CREATE TABLE lock(ino INTEGER NOT NULL, session INTEGER NOT NULL, owner INTEGER NOT NULL, start INTEGER NOT NULL,
  end INTEGER NOT NULL, kind INTEGER NOT NULL, pid INTEGER NOT NULL, PRIMARY KEY(ino,start,session,owner,kind)) WITHOUT ROWID;

CREATE TABLE bucket(id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, owner TEXT NOT NULL, region TEXT NOT NULL,
  created_ns INTEGER NOT NULL, versioning INTEGER NOT NULL,          -- 0 never, 1 enabled, 2 suspended
  ever_versioned INTEGER NOT NULL, lock INTEGER NOT NULL);
CREATE TABLE bucket_setting(bucket INTEGER NOT NULL, kind INTEGER NOT NULL, value BLOB NOT NULL,
  PRIMARY KEY(bucket,kind)) WITHOUT ROWID;
CREATE TABLE usage(bucket INTEGER PRIMARY KEY, object_count INTEGER NOT NULL, size_bytes INTEGER NOT NULL,
  version_count INTEGER NOT NULL, version_bytes INTEGER NOT NULL);
CREATE TABLE account(id TEXT PRIMARY KEY, name TEXT NOT NULL, attrs BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE credential(access_key TEXT PRIMARY KEY, account TEXT NOT NULL, attrs BLOB NOT NULL) WITHOUT ROWID;

CREATE TABLE session(id INTEGER PRIMARY KEY, gateway TEXT NOT NULL, renewals INTEGER NOT NULL,
  watermark INTEGER NOT NULL,        -- the applied index of its oldest read: what died later is kept for it
  acked INTEGER NOT NULL);           -- outcomes up to this sequence were received
CREATE TABLE lease(start INTEGER PRIMARY KEY, end INTEGER NOT NULL, session INTEGER NOT NULL);
CREATE TABLE outcome(session INTEGER NOT NULL, seq INTEGER NOT NULL, value BLOB NOT NULL,
  PRIMARY KEY(session,seq)) WITHOUT ROWID;
CREATE TABLE hold(ino INTEGER NOT NULL, session INTEGER NOT NULL, PRIMARY KEY(ino,session)) WITHOUT ROWID;
CREATE TABLE outbox(seq INTEGER PRIMARY KEY, bucket INTEGER NOT NULL, event BLOB NOT NULL);
CREATE TABLE cursor(name TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE job(id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, state BLOB NOT NULL);
CREATE TABLE audit(seq INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, event BLOB NOT NULL);

CREATE TABLE state(k INTEGER PRIMARY KEY CHECK(k=1),                 -- one row
  format INTEGER NOT NULL,
  feature_level INTEGER NOT NULL,    -- what all members know; raised by a command alone: see level.rs
  incarnation INTEGER NOT NULL,
  next_id INTEGER NOT NULL,          -- counter part of the next id; nothing above it was ever given out
  next_dead INTEGER NOT NULL, next_reclaim INTEGER NOT NULL,
  time_ns INTEGER NOT NULL,          -- catalog time: advanced by tick commands only
  applied_term INTEGER NOT NULL, applied_index INTEGER NOT NULL,     -- index + 1; 0: nothing applied
  applied_leader INTEGER NOT NULL, membership BLOB NOT NULL);        -- opaque to the catalog
