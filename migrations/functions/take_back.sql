-- Takes offsets out of whatever leases hold them: their ackIds are stale from here on, whoever settles them next.
create or replace function take_back(p bigint, g int, taken bigint[])
returns void
language plpgsql as $$
#variable_conflict use_column
declare
    gone int8multirange;
begin
    select range_agg(int8range(x.o, x.o + 1)) into gone from unnest(taken) x (o);
    with hit as (
        select l.id, greatest(max(l.deadline), to_timestamp((l.id >> 20) / 1000.0)) as deadline, range_agg(r.r) as part
        from leases l cross join lateral unnest(l.pending * gone) r (r)
        where l.partition_id = p and l.group_id = g and l.pending && gone
        group by l.id)
    insert into past_leases as x (partition_id, group_id, id, until, lost)
    select p, g, h.id, h.deadline, h.part from hit h
    on conflict (partition_id, group_id, id) do update
    set until = greatest(x.until, excluded.until), lost = x.lost + excluded.lost;
    update leases l set pending = l.pending - gone
    where l.partition_id = p and l.group_id = g and l.pending && gone;
    delete from leases l where l.partition_id = p and l.group_id = g and isempty(l.pending);
end $$;
