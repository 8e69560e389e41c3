/* What a mount says of itself. */
#pragma once
#include <jansson.h>

#include "fs/mount/mountpoint.h"
#include "fs/mount/session.h"

/* A new reference; NULL without memory. */
json_t *dfs_status_json(struct dfs_session *s, const struct dfs_mountpoint *m);
