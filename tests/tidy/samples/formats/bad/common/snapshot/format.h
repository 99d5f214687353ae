enum container_kind {
    CONTAINER_FORMAT = 1,
    CONTAINER_ROOT = 1,
    CONTAINER_HEAD = 3,
};
#define CAPABILITY_LIST(X)                                                                         \
    X(0, CORS, "pages may call")                                                                   \
    X(1, RETRIES, "a method is retried")
