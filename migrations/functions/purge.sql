-- Removes everything of one partition from sight, at once: messages, leases, deferred messages, dead letters, and
-- idempotency keys, which are forgotten if they are older than purged_at. Every group's cursor goes to the end and its
-- epoch makes old ackIds stale. Offsets go on. What the log stored is deleted afterwards, by retention.
-- Returns how many messages there were.
create or replace function purge(p bigint)
returns bigint
language plpgsql as $$
#variable_conflict use_column
declare
    t timestamptz;
    first bigint;
    ahead bigint;
begin
    delete from dead_letters l where l.partition_id = p;  -- most of them before anybody has to wait for us
    select x.first_offset into first from partitions x where x.id = p for no key update;
    if not found then
        return 0;
    end if;
    select greatest(first, (select b.base_offset + b.count from batches b
                            where b.partition_id = p order by b.base_offset desc limit 1)) into ahead;
    t := clock_timestamp();
    update partitions x set first_offset = ahead, purged_at = t where x.id = p;

    perform from cursors c where c.partition_id = p order by c.group_id for no key update;
    with dropped as (
        select c.group_id,
               (select coalesce(sum(upper(r.r) - lower(r.r)), 0)
                from leases l cross join lateral unnest(l.pending) r (r)
                where l.partition_id = p and l.group_id = c.group_id) as leased,
               (select count(*) from deferred d
                where d.partition_id = p and d.group_id = c.group_id and d.lease_id is null) as waiting
        from cursors c where c.partition_id = p)
    update cursors c
    set next_offset = ahead, epoch = c.epoch + 1, passed = c.passed - x.leased - x.waiting, removed = c.dead
    from dropped x
    where c.partition_id = p and c.group_id = x.group_id;
    delete from leases l where l.partition_id = p;
    delete from deferred d where d.partition_id = p;
    delete from dead_letters l where l.partition_id = p;
    return ahead - first;
end $$;
