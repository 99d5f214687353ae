/* main: trilane-cp. Wiring alone: the commands are in controlplane/cli. */
#include "common/base/ids.h"
#include "controlplane/cli/cli.h"

int main(int argc, char **argv)
{
    ids_init();
    return cli_run(argc, argv);
}
