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
    leased_groups int[];
    leased bigint[];
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
    -- Counted as they go: acks do not wait for the cursor, and what one of them was quicker with was acked.
    with gone as (
        delete from leases l where l.partition_id = p returning l.group_id, l.pending)
    select array_agg(x.group_id), array_agg(upper(r.r) - lower(r.r)) into leased_groups, leased
    from gone x cross join lateral unnest(x.pending) r (r);
    delete from past_leases x where x.partition_id = p;
    with gone as (
        delete from deferred d where d.partition_id = p returning d.group_id, d.lease_id),
    dropped as (
        select x.group_id, x.n from unnest(leased_groups, leased) x (group_id, n)
        union all
        select x.group_id, 1 from gone x where x.lease_id is null)
    update cursors c
    set next_offset = ahead, epoch = c.epoch + 1, removed = c.dead, lost = c.lost + greatest(first - c.next_offset, 0),
        passed = c.passed - coalesce((select sum(x.n) from dropped x where x.group_id = c.group_id), 0)
    where c.partition_id = p;
    delete from dead_letters l where l.partition_id = p;
    return ahead - first;
end $$;
