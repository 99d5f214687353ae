/* sprintf() and strtok() are banned. */
const char *text = "atoi(x)";
int my_atoi(int x)
{
    return x;
}
