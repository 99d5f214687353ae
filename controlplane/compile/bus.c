/* bus: types of events. */
#include "controlplane/compile/compiler.h"

#include "trilane/parts/v1/parts.pb-c.h"

struct err cp_compile_bus(struct cp_compiler *c)
{
    static const char stream[] = "TRILANE_EVENTS";
    const struct cp_resources *all = &c->model->of[CP_KIND_TOPIC];
    for (size_t i = 0; i < all->count; i++) {
        const struct cp_topic *topic = (const struct cp_topic *)all->items[i];
        if (!cp_is_whole(&topic->meta)) {
            continue;
        }
        Trilane__Parts__V1__TopicPart part;
        trilane__parts__v1__topic_part__init(&part);
        part.type = cp_str(topic->type.text);
        part.major = (uint32_t)topic->major;
        part.full_name = cp_str(topic->message.text);
        part.stream = proto_text(stream);
        part.payload_bytes = (uint32_t)topic->payload_bytes;
        part.version = cp_str(topic->version.text);
        TRY(cp_emit(c, CP_PART_BUS, topic->meta.key, &part.base, topic->meta.at));
    }
    return OK;
}
