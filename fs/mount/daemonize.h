/* Going to the background while the caller still learns what becomes of it: the parent waits until the child says
 * that it is ready or why it is not, prints that and exits with the child's code. Call before threads start. */
#pragma once

/* In the child: the descriptor to report on. The parent does not return. Negative errno. */
int dfs_daemonize_begin(void);
/* Code 0: ready; the child lets go of the terminal. Else `text` and the parent's exit code. -1 as fd: nothing to do. */
void dfs_daemonize_report(int fd, int code, const char *text);
