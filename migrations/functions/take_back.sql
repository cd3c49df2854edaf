-- Takes offsets out of whatever leases hold them: their ackIds are stale from here on.
create or replace function take_back(p bigint, g int, taken bigint[])
returns void
language plpgsql as $$
declare
    gone int8multirange;
begin
    select range_agg(int8range(x.o, x.o + 1)) into gone from unnest(taken) x (o);
    update leases l set pending = l.pending - gone
    where l.partition_id = p and l.group_id = g and l.pending && gone;
    delete from leases l where l.partition_id = p and l.group_id = g and isempty(l.pending);
end $$;
