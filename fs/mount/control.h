/* The control socket of a mounted volume: `control` in its directory, one JSON object a line each way (docs/control.md).
 *
 * A thread accepts, at most 8 connections are served at a time, each by a thread; lines are at most 64 KiB, and a peer
 * that neither asks nor reads for a while is let go. start and stop belong to the thread that runs the mount; the
 * session must outlive the server. */
#pragma once
#include "fs/mount/mountpoint.h"
#include "fs/mount/session.h"

struct dfs_control;

/* `dir`: of the volume. A socket left behind by a crash is replaced. */
int dfs_control_start(const char *dir, struct dfs_session *s, const struct dfs_mountpoint *m, struct dfs_control **out,
                      struct dfs_err *err);
/* Removes the socket, lets the connections go and waits for them. */
void dfs_control_stop(struct dfs_control *c);
