/* commands: one row for each command, defined in the file that does its work. */
#pragma once

#include "controlplane/cli/cli.h"

#define CLI_COMMAND_LIST(X)                                                                        \
    X(serve)                                                                                       \
    X(validate)                                                                                    \
    X(plan)                                                                                        \
    X(publish)                                                                                     \
    X(rollback)                                                                                    \
    X(recover)                                                                                     \
    X(backup)                                                                                      \
    X(restore)                                                                                     \
    X(proposal_show)                                                                               \
    X(proposal_sign)                                                                               \
    X(history)                                                                                     \
    X(diff)                                                                                        \
    X(status)                                                                                      \
    X(wait)                                                                                        \
    X(key_generate)                                                                                \
    X(key_root)                                                                                    \
    X(key_token)                                                                                   \
    X(key_list)                                                                                    \
    X(key_rotate)                                                                                  \
    X(key_revoke)                                                                                  \
    X(root_show)                                                                                   \
    X(root_sign)                                                                                   \
    X(root_publish)                                                                                \
    X(identity_init)                                                                               \
    X(identity_issue)                                                                              \
    X(identity_token)                                                                              \
    X(identity_list)                                                                               \
    X(identity_remove)                                                                             \
    X(help)

#define X(name) extern const struct cli_command cli_command_##name;
CLI_COMMAND_LIST(X)
#undef X
