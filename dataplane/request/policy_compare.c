/*
 * policy_compare: the values of a request that policies read, and their numbers.
 *
 * A size counts characters of UTF-8 as CEL's size() does; bytes that are no UTF-8 count each, but
 * for those that continue a character. An integer is a minus sign or none and decimal digits.
 */
#include "common/base/check.h"
#include "dataplane/apply/model.h"
#include "dataplane/request/policy_impl.h"

#include "trilane/parts/v1/parts.pb-c.h"

bool policy_value(const struct dp_policy_query *query, uint8_t attribute, struct slice name,
                  struct slice *out)
{
    const struct dp_caller *caller = query->caller;
    switch (attribute) {
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_VERB:
        *out = dp_verb_name(query->verb);
        return true;
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_METHOD:
        *out = query->method;
        return true;
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_CALLER:
        *out = caller->id;
        return true;
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_CALLER_TENANT:
        *out = caller->tenant;
        return true;
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_CALLER_TRUST_DOMAIN:
        *out = caller->domain;
        return true;
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_TRAIT:
        return dp_caller_trait(caller, name, out);
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_HEADER:
        return query->header != NULL && query->header(query->ctx, name, out);
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_LANE:
        *out = query->lane;
        return true;
    default:
        CHECK(false); /* dp_policy_build() let no other in. */
        return false;
    }
}

static int64_t size_of(struct slice text)
{
    int64_t size = 0;
    for (size_t i = 0; i < text.size; i++) {
        size += (text.ptr[i] & 0xc0) != 0x80;
    }
    return size;
}

/* False: the text is no integer of 64 bits. */
static bool int_of(struct slice text, int64_t *out)
{
    bool negative = text.size > 0 && text.ptr[0] == '-';
    uint64_t most = (uint64_t)INT64_MAX + (negative ? 1 : 0);
    uint64_t number = 0;
    for (size_t i = negative; i < text.size; i++) {
        uint64_t digit = (uint64_t)text.ptr[i] - '0'; /* what stands before '0' is large. */
        if (digit > 9 || number > (most - digit) / 10) {
            return false;
        }
        number = number * 10 + digit;
    }
    *out = negative ? (int64_t)(0 - number) : (int64_t)number;
    return text.size > (negative ? 1 : 0);
}

enum policy_compared policy_compare(const struct policy_comparison *comparison,
                                    const struct dp_policy_query *query)
{
    struct slice text = {0};
    int64_t number = 0;
    if (!policy_value(query, comparison->attribute, comparison->name, &text)) {
        return POLICY_NO_NUMBER;
    }
    if (comparison->measure == TRILANE__PARTS__V1__MEASURE__MEASURE_SIZE) {
        number = size_of(text);
    } else if (!int_of(text, &number)) {
        return POLICY_NO_NUMBER;
    }
    return number >= comparison->least && number <= comparison->most ? POLICY_IN : POLICY_OUT;
}
