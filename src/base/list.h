/* SPDX-License-Identifier: Apache-2.0
 * list.h - intrusive circular doubly linked list. A head is a node that is not in anything. */
#ifndef LIM__LIST_H
#define LIM__LIST_H

#include <stdbool.h>
#include <stddef.h>

typedef struct lim__list {
    struct lim__list *next, *prev;
} lim__list;

static inline void lim__list_init(lim__list *head)
{
    head->next = head->prev = head;
}
static inline bool lim__list_empty(const lim__list *head)
{
    return head->next == head;
}
static inline void lim__list_push(lim__list *head, lim__list *node) /* at the end */
{
    node->next = head;
    node->prev = head->prev;
    head->prev->next = node;
    head->prev = node;
}
static inline void lim__list_push_front(lim__list *head, lim__list *node)
{
    lim__list_push(head->next, node);
}
static inline void lim__list_remove(lim__list *node) /* safe to repeat: the node is a list of its own afterwards */
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->next = node->prev = node;
}
static inline lim__list *lim__list_pop(lim__list *head) /* from the front; NULL when empty */
{
    lim__list *node = head->next;
    if (node == head)
        return NULL;
    lim__list_remove(node);
    return node;
}
#define LIM__LIST_EACH(node, head) for (lim__list *node = (head)->next; node != (head); node = node->next)
/* The body may remove the node. */
#define LIM__LIST_EACH_SAFE(node, tmp, head)                                                                           \
    for (lim__list *node = (head)->next, *tmp = node->next; node != (head); node = tmp, tmp = node->next)

#endif
