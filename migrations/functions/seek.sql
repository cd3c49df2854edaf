-- Moves a group's cursor: to earliest, latest, an offset (inclusive, clamped to what exists) or a time (the first
-- message at or after it). Leases and deferred messages are dropped, and the epoch makes their ackIds stale: below the
-- new position everything counts as settled, from it on everything is delivered afresh. Returns the new position.
create or replace function seek(p bigint, g int, target text, wanted bigint, at timestamptz)
returns bigint
language plpgsql as $$
#variable_conflict use_column
declare
    first bigint;
    ahead bigint;
    position bigint;
    leased bigint;
    waiting bigint;
begin
    perform from cursors c where c.partition_id = p and c.group_id = g for no key update;
    if not found then
        raise exception 'cursor is gone' using errcode = 'LP404', detail = p::text;
    end if;
    select x.first_offset, greatest(x.first_offset, (select b.base_offset + b.count from batches b
                                                     where b.partition_id = p order by b.base_offset desc limit 1))
    into first, ahead from partitions x where x.id = p;
    position := case target when 'earliest' then first
                            when 'latest' then ahead
                            when 'offset' then least(greatest(wanted, first), ahead)
                            when 'timestamp' then offset_at(p, at) end;

    with gone as (
        delete from leases l where l.partition_id = p and l.group_id = g returning l.pending)
    select coalesce(sum(upper(r.r) - lower(r.r)), 0) into leased
    from gone x cross join lateral unnest(x.pending) r (r);
    delete from past_leases x where x.partition_id = p and x.group_id = g;
    with gone as (
        delete from deferred d where d.partition_id = p and d.group_id = g returning d.lease_id)
    select count(*) filter (where x.lease_id is null) into waiting from gone x;
    update cursors c
    set next_offset = position, epoch = c.epoch + 1, lost = c.lost + greatest(first - c.next_offset, 0), passed = c.passed - leased - waiting
    where c.partition_id = p and c.group_id = g;
    return position;
end $$;
