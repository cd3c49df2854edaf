-- Claims of other partitions of a group run beside one another. Where together they could pass the group's limit of
-- leased messages, they take turns; where they could not, each says that it is at work, so that one that stalls is
-- waited for before the limit is reached. False: it was, while we waited.
create or replace function may_claim_beside(g int, flight_limit bigint, siblings int)
returns boolean
language plpgsql as $$
begin
    if in_flight(g, clock_timestamp()) + 1000 * siblings > flight_limit then
        perform from groups gr where gr.id = g for no key update;
        return true;
    end if;
    perform from groups gr where gr.id = g for share;
    return in_flight(g, clock_timestamp()) + 1000 * siblings <= flight_limit;
end $$;
