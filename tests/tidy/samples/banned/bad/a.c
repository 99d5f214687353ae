#include <stdlib.h>

int number(const char *text)
{
    return atoi(text);
}

int any(void)
{
    return rand();
}
