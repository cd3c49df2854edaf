-- Messages at these offsets without their payloads, which stay untouched. Offsets no longer stored are absent.
create or replace function envelopes_at(p bigint, wanted bigint[])
returns table ("offset" bigint, published_at timestamptz, key text, meta jsonb)
language plpgsql stable rows 100 as $$
#variable_conflict use_column
begin
    return query
    with homes as materialized (
        select distinct (select b.base_offset from batches b
                         where b.partition_id = p and b.base_offset <= w.o
                         order by b.base_offset desc limit 1) as base_offset
        from unnest(wanted) w (o))
    select w.o, b.published_at, b.keys[w.o - b.base_offset + 1], b.meta[w.o - b.base_offset + 1]
    from homes h
    join batches b on b.partition_id = p and b.base_offset = h.base_offset
    join unnest(wanted) w (o) on w.o >= b.base_offset and w.o < b.base_offset + b.count;
end $$;
