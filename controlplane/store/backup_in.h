/*
 * backup_in: the stream of a backup, for backup.c and restore.c.
 *
 * Shape      Numbers little-endian. Opening: "TRLNBACK", format (u32), number of the schema that
 *            was read (u32). Then items, each after its kind (one byte): 1 table: its name, the
 *            number of its columns (u8), each a kind (u8: 1 number, 2 text, 3 bytes) and a name;
 *            names are a size (u8) and text; 2 row of the last table: for each column a number
 *            (u64), or a size (u32) and bytes; 3 end: the number of rows in all (u64), then
 *            BLAKE2b-256 of every byte before it. Tables come in an order in which each row finds
 *            what it refers to. A column that a reader does not know is from a newer release; one
 *            that is missing gets its default.
 * Source     docs/control-plane.md, "The store".
 */
#pragma once

#include "controlplane/store/sql.h"

#define CP_BACKUP_MAGIC "TRLNBACK"

enum {
    CP_BACKUP_FORMAT = 1,
    CP_BACKUP_DIGEST = 32,
    CP_BACKUP_COLUMNS_MAX = 16,
    CP_BACKUP_TABLES = 16,
};

enum cp_backup_item { CP_BACKUP_TABLE = 1, CP_BACKUP_ROW = 2, CP_BACKUP_END = 3 };

struct cp_backup_column {
    const char *name;
    enum sql_kind kind;
    bool is_blank; /* zeroes in a backup, whatever the database has: it was a process's own. */
};

struct cp_backup_table {
    const char *name;
    unsigned page;      /* rows read at once: bounds memory by the size of a row. */
    unsigned key_count; /* columns of the primary key; they come first, in its order. */
    unsigned column_count;
    struct cp_backup_column columns[CP_BACKUP_COLUMNS_MAX];
};

extern const struct cp_backup_table cp_backup_tables[CP_BACKUP_TABLES];
