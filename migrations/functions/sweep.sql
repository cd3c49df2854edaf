-- Deletes record batches that lie wholly below what their partition retains, oldest first, a bounded number. Returns
-- how many were deleted; 0 also when somebody holds a cursor for longer than we care to wait.
--
-- What a lease still holds stays until the lease is gone. Deferred messages get copies of their own first. Every cursor
-- of the partition is locked meanwhile, so that no message is on its way from the log into a lease, or from a lease to
-- the deferred. The newest batch gives way to one empty message in its last place: from there appends take the next
-- offset, and the time that publishedAt must not fall below.
create or replace function sweep(p bigint, most int)
returns int
language plpgsql as $$
declare
    most_bytes constant bigint := 32 << 20;  -- a second's work at worst
    retained bigint;
    newest bigint;
    gone int8multirange;
    n int;
begin
    perform set_config('lock_timeout', '250ms', true);
    perform from cursors c where c.partition_id = p order by c.group_id for no key update;
    select l.first_offset into retained from partitions l where l.id = p;
    select b.base_offset into newest from batches b where b.partition_id = p order by b.base_offset desc limit 1;

    select range_agg(int8range(x.base_offset, x.base_offset + x.count)) into gone
    from (select b.base_offset, b.count, sum(pg_column_size(b.payloads)) over earlier as bytes_before
          from batches b
          where b.partition_id = p and b.base_offset < retained and b.base_offset + b.count <= retained
            and not exists (select from leases l where l.partition_id = p
                            and l.pending && int8range(b.base_offset, b.base_offset + b.count))
          window earlier as (order by b.base_offset rows between unbounded preceding and 1 preceding)
          order by b.base_offset limit most) x
    where coalesce(x.bytes_before, 0) < most_bytes;
    if gone is null then
        return 0;
    end if;

    update deferred d
    set key = coalesce(d.key, m.key), meta = m.meta, payload = m.payload, published_at = m.published_at
    from messages_at(p, array(select distinct w."offset" from deferred w
                              where w.partition_id = p and w.payload is null and gone @> w."offset")) m
    where d.partition_id = p and d."offset" = m."offset" and d.payload is null;

    update batches b
    set base_offset = b.base_offset + b.count - 1, count = 1, timed = false, keys = null, meta = null, payloads = '{""}'
    where b.partition_id = p and b.base_offset = newest and gone @> newest;
    delete from batches b
    where b.partition_id = p and b.base_offset >= lower(gone) and b.base_offset < least(upper(gone), newest)
      and gone @> b.base_offset;
    get diagnostics n = row_count;
    return n;
exception
    when lock_not_available or deadlock_detected then
        return 0;
end $$;
